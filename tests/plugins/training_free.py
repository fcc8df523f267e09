"""A method without training: SAM, asked for the query's cell most similar to the supports."""

import torch

from fssbench import ImageMatcher, MatcherSpec
from fssbench.nn import cosine_map, masked_average, masks_at


def fssbench_matchers():
    return [
        MatcherSpec(
            name="two-points",
            summary="SAM's mask of the most similar point, without the least similar one",
            factory="training_free:TwoPoints",
            encoders={"features": "dinov2-l", "masks": "promptable-sam-vit-h"},
            small_encoders={"features": "tiny-vit", "masks": "promptable-tiny-sam"},
        )
    ]


class TwoPoints(ImageMatcher):
    def predict(self, episode):
        sam, size = self.encoders["masks"].module, episode.query.shape[1:]
        embedding = self.encoders["masks"].cached(
            episode.query,
            "two-points.embed",
            lambda image: sam.embed(image[None].float() / 255)[0],
        )
        points, labels = self.prompt(self.similarity(episode), size)
        prompts = {"points": points, "labels": labels}
        masks = sam.predict(embedding, size, **prompts, multimask=True)
        best = masks.iou[0].argmax()
        rows, columns = torch.where(masks.logits[0, best] > 0)
        if not len(rows):
            return masks.logits[0, best]
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        prompts["boxes"] = torch.stack(corners)[None].float()
        prompts["masks"] = masks.low_resolution[:, best]
        return sam.predict(embedding, size, **prompts).logits[0, 0]

    def maps(self, episode):
        return {"similarity": self.similarity(episode)}

    def similarity(self, episode):
        """Return the cosines of the query's cells and the mean foreground, (h, w)."""
        prototypes = []
        for image, mask in zip(episode.images, episode.masks, strict=True):
            maps = self.features(image)
            prototypes.append(masked_average(maps, masks_at(mask[None], 1, *maps.shape[-2:])))
        return cosine_map(self.features(episode.query), torch.stack(prototypes).mean(0))[0]

    def features(self, image):
        """Return the last layer's features of an image, (1, C, h, w)."""
        encoder = self.encoders["features"]
        layer = encoder.module.info.last_layer
        return encoder.features(image, [layer])[layer][None]

    def prompt(self, similarity, size):
        """Return the centres of two cells in pixels, (1, 2, 2), and their labels, (1, 2)."""
        height, width = similarity.shape
        cells = torch.stack([similarity.argmax(), similarity.argmin()])
        x = (cells % width + 0.5) * size[1] / width
        y = (cells // width + 0.5) * size[0] / height
        return torch.stack([x, y], 1)[None], torch.tensor([[1, 0]], device=x.device)
