"""Specs of the bundled datasets. This module imports no heavy package."""

from __future__ import annotations

from fssbench.specs import DatasetSpec


def fssbench_datasets() -> list[DatasetSpec]:
    """Return the specs of the bundled datasets."""
    return [
        DatasetSpec(
            name="pascal5i",
            summary="PASCAL VOC 2012, with the SBD masks where they are: 20 classes, 4 folds of 5",
            factory="fssbench.data.pascal:Pascal",
            config="fssbench.data.pascal:PascalConfig",
            aliases=("pascal",),
            paper="Shaban et al., One-Shot Learning for Semantic Segmentation, BMVC 2017",
            licence="Flickr's terms of use (images)",
            cite=(
                "fssbench:everingham2010voc",
                "fssbench:hariharan2011sbd",
                "fssbench:shaban2017oneshot",
            ),
            layout="VOC2012/ with JPEGImages/, SegmentationClassAug/ (or SegmentationClass/) and "
            "ImageSets/Segmentation/val.txt, train_aug.txt (or train.txt)",
        ),
        DatasetSpec(
            name="coco20i",
            summary="COCO instances as class masks: 80 classes, 4 interleaved folds of 20",
            factory="fssbench.data.coco:Coco",
            config="fssbench.data.coco:CocoConfig",
            aliases=("coco",),
            paper="Nguyen and Todorovic, Feature Weighting and Boosting for Few-Shot Segmentation, "
            "ICCV 2019",
            licence="CC-BY-4.0 (annotations), Flickr's terms of use (images)",
            cite=("fssbench:lin2014coco", "fssbench:nguyen2019boosting"),
            layout="annotations/instances_{train,val}{2014,2017}.json with train2014/, val2014/, "
            "…; or annotations/instances.json with images/",
        ),
        DatasetSpec(
            name="fss1000",
            summary="FSS-1000: 1000 classes of 10 images, 520/240/240 classes to train/val/test",
            factory="fssbench.data.fss1000:Fss1000",
            config="fssbench.data.fss1000:Fss1000Config",
            paper="Li et al., FSS-1000: A 1000-Class Dataset for Few-Shot Segmentation, CVPR 2020",
            cite=("fssbench:li2020fss1000",),
            layout="<class>/<n>.jpg and <class>/<n>.png; class lists through -d lists=FOLDER",
        ),
        DatasetSpec(
            name="davis17",
            summary="validation videos of DAVIS 2017 at 480 pixels: 30 videos, 61 objects",
            factory="fssbench.data.davis:Davis17",
            paper="Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, arXiv "
            "1704.00675",
            cite=("fssbench:ponttuset2017davis", "fssbench:perazzi2016davis"),
            licence="BSD (README of the authors' toolkit)",
            layout="JPEGImages/480p/<video>/<frame>.jpg, Annotations/480p/<video>/<frame>.png and "
            "ImageSets/2017/val.txt",
        ),
        DatasetSpec(
            name="deepglobe",
            summary="DeepGlobe Land Cover: tiles of satellite images, 6 classes of land",
            factory="fssbench.data.cross_domain.deepglobe:DeepGlobe",
            paper="Demir et al., DeepGlobe 2018: A Challenge to Parse the Earth through Satellite "
            "Images, CVPR Workshops 2018",
            licence="terms of the DeepGlobe challenge",
            cite=("fssbench:demir2018deepglobe", "fssbench:lei2022cdfss"),
            layout="images/<tile>.png and masks/<tile>.png; or PATNet's <n>/test/origin/<tile>.jpg "
            "and <n>/test/groundtruth/<tile>.png",
        ),
        DatasetSpec(
            name="isic2018",
            summary="ISIC 2018: skin lesions of 3 diagnoses, 2,594 images",
            factory="fssbench.data.cross_domain.isic:Isic2018",
            config="fssbench.data.cross_domain.isic:Isic2018Config",
            paper="Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv "
            "1902.03368",
            licence="CC-BY-NC-4.0",
            cite=(
                "fssbench:codella2019isic",
                "fssbench:tschandl2018ham10000",
                "fssbench:lei2022cdfss",
            ),
            layout="ISIC2018_Task1-2_Training_Input/<image>.jpg, ISIC2018_Task1_Training_"
            "GroundTruth/<image>_segmentation.png and class_id.csv",
        ),
        DatasetSpec(
            name="chest-xray",
            summary="chest X-rays of Shenzhen and Montgomery County: the lungs, 704 images",
            factory="fssbench.data.cross_domain.chest_xray:ChestXray",
            config="fssbench.data.cross_domain.chest_xray:ChestXrayConfig",
            paper="Candemir et al., Lung Segmentation in Chest Radiographs Using Anatomical "
            "Atlases with Nonrigid Registration, IEEE TMI 2014",
            licence="terms of the U.S. National Library of Medicine",
            cite=(
                "fssbench:candemir2014lung",
                "fssbench:jaeger2014tuberculosis",
                "fssbench:lei2022cdfss",
            ),
            layout="CXR_png/<image>.png and masks/<image>_mask.png (or masks/<image>.png)",
        ),
        DatasetSpec(
            name="suim",
            summary="SUIM: underwater images, 7 classes, 1,635 images",
            factory="fssbench.data.cross_domain.suim:Suim",
            paper="Islam et al., Semantic Segmentation of Underwater Imagery: Dataset and "
            "Benchmark, IROS 2020",
            licence="terms of the authors",
            cite=("fssbench:islam2020suim", "fssbench:herzog2024abcdfss"),
            layout="train_val/ and TEST/ with images/<image>.jpg and masks/<image>.bmp; or "
            "ABCDFSS's images/<image>.jpg and masks/<class>/<image>.bmp",
        ),
        DatasetSpec(
            name="lvis92i",
            summary="LVIS v1 as class masks: 920 of 1,203 classes in 10 interleaved folds of 92",
            factory="fssbench.data.lvis:Lvis92i",
            config="fssbench.data.lvis:LvisConfig",
            paper="Liu et al., Matcher: Segment Anything with One Shot Using All-Purpose Feature "
            "Matching, ICLR 2024",
            licence="lvisdataset.org/dataset#license (annotations), Flickr's terms of use (images)",
            cite=("fssbench:gupta2019lvis", "fssbench:lin2014coco", "fssbench:liu2024matcher"),
            layout="annotations/lvis_v1_val.json (and lvis_v1_train.json) with train2017/ and "
            "val2017/ of COCO",
        ),
        DatasetSpec(
            name="pascal-part",
            summary="PASCAL-Part: parts of a cut-out object, 4 folds by superclass",
            factory="fssbench.data.pascal_part:PascalPart",
            paper="Chen et al., Detect What You Can: Detecting and Representing Objects using "
            "Holistic Models and Body Parts, CVPR 2014",
            licence="Flickr's terms of use (images)",
            cite=(
                "fssbench:chen2014pascalpart",
                "fssbench:everingham2010voc",
                "fssbench:liu2024matcher",
            ),
            layout="VOC2010/ with JPEGImages/, Annotations_Part_json_merged_part_classes/ and "
            "all_obj_part_to_image.json",
        ),
        DatasetSpec(
            name="paco-part",
            summary="PACO-LVIS v1: parts of 75 objects in COCO's images, 4 interleaved folds",
            factory="fssbench.data.paco_part:PacoPart",
            config="fssbench.data.paco_part:PacoPartConfig",
            paper="Ramanathan et al., PACO: Parts and Attributes of Common Objects, CVPR 2023",
            licence="Flickr's terms of use (images)",
            cite=(
                "fssbench:ramanathan2023paco",
                "fssbench:lin2014coco",
                "fssbench:liu2024matcher",
            ),
            layout="annotations/paco_lvis_v1_{train,val,test}.json with train2017/ and val2017/, "
            "which may be below coco/ or images/",
        ),
        DatasetSpec(
            name="isaid5i",
            summary="iSAID-5i: tiles of aerial images, 15 classes, 3 folds of 5",
            factory="fssbench.data.isaid:Isaid5i",
            paper="Yao et al., Scale-Aware Detailed Matching for Few-Shot Aerial Image Semantic "
            "Segmentation, TGRS 2021",
            licence="academic use only (iSAID, DOTA)",
            cite=("fssbench:yao2021sdm", "fssbench:waqaszamir2019isaid"),
            layout="{train,val}/images/<name>.png and "
            "{train,val}/semantic_png/<name>_instance_color_RGB.png",
        ),
        DatasetSpec(
            name="folder",
            summary="your own images: one folder a class, a mask for each image",
            factory="fssbench.data.folder:Folder",
            config="fssbench.data.folder:FolderConfig",
            layout="<class>/<name>.jpg and <class>/<name>.png (or <name>_mask.png); "
            "or <class>/images/<name>.jpg and <class>/masks/<name>.png",
        ),
        DatasetSpec(
            name="coco-json",
            summary="your own annotation files in COCO's format, with any categories",
            factory="fssbench.data.coco_json:CocoJson",
            config="fssbench.data.coco_json:CocoJsonConfig",
            layout="an annotation file of object instances (-d val=FILE) and images/",
        ),
        DatasetSpec(
            name="labels",
            summary="your own images and label maps, with the names of the values in a file",
            factory="fssbench.data.labels:Labels",
            config="fssbench.data.labels:LabelsConfig",
            layout="images/<name>.jpg, labels/<name>.png and classes.toml (or classes.json)",
        ),
        DatasetSpec(
            name="images",
            summary="any folder of pictures without annotation, for stages that need none",
            factory="fssbench.data.unlabelled:PlainImages",
            config="fssbench.data.unlabelled:PlainImagesConfig",
            layout="pictures (.jpg .jpeg .png .bmp .webp), in folders as deep as you like",
        ),
        DatasetSpec(
            name="shapes",
            summary="pictures that are drawn by fssbench itself; needs no files",
            factory="fssbench.data.shapes.shapes:Shapes",
            config="fssbench.data.shapes.shapes:ShapesConfig",
            licence="Apache-2.0",
        ),
    ]
