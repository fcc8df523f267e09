"""The selective scan, compared with the recurrence step by step in float64."""

from __future__ import annotations

import importlib
import types

import pytest
import torch
from torch.nn import functional

from fssbench.cli.doctor import _mamba
from fssbench.nn import scan_in_use, selective_scan, torch_scan

# Imported by name, since the package has a function of the same name.
module = importlib.import_module("fssbench.nn.selective_scan")
GRADIENTS = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def recurrence(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False):
    """Compute the recurrence by its formula, step by step."""
    channels = u.shape[1]
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = functional.softplus(delta)
    B, C = (x.repeat_interleave(channels // x.shape[1], 1) for x in (B, C))  # (b, d, n, L)
    h = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype)
    steps = []
    parts = (x.unbind(-1) for x in (delta * u, delta, B, C))
    for driven, step, b, c in zip(*parts, strict=True):
        h = torch.exp(step[..., None] * A) * h + driven[..., None] * b
        steps.append((h * c).sum(-1))
    y = torch.stack(steps, -1)
    return y if D is None else y + u * D[:, None]


def draw(batch, channels, length, states, groups, *, d=True, bias=True, seed=0, strong=1.0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "u": normal(batch, channels, length),
        "delta": 0.5 * normal(batch, channels, length).abs(),
        "A": -strong * (0.05 + normal(channels, states).abs()),
        "B": normal(batch, groups, states, length),
        "C": normal(batch, groups, states, length),
        "D": normal(channels) if d else None,
        "delta_bias": 0.1 * normal(channels).abs() if bias else None,
    }


def cast(inputs, kind, grad=False):
    return {
        name: None if x is None else x.detach().clone().to(kind).requires_grad_(grad)
        for name, x in inputs.items()
    }


def near(found, expected, tolerance):
    scale = expected.abs().max().clamp(min=1)
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    deviation = (found.double() - expected).abs().max() / scale
    assert deviation <= tolerance, float(deviation)


def compare(inputs, softplus):
    """Outputs to 1e-5 and gradients to 1e-4, relative to the largest value."""
    expected_in, found_in = cast(inputs, torch.float64, True), cast(inputs, torch.float32, True)
    expected = recurrence(**expected_in, delta_softplus=softplus)
    found = selective_scan(**found_in, delta_softplus=softplus)
    assert found.dtype == torch.float32
    near(found.detach(), expected.detach(), 1e-5)
    slope = torch.randn(expected.shape, dtype=torch.float64)
    expected.backward(slope)
    found.backward(slope.float())
    for name in GRADIENTS:
        if inputs[name] is not None:
            near(found_in[name].grad, expected_in[name].grad, 1e-4)


SHAPES = [  # batch, channels, length, states, groups
    (1, 1, 1, 1, 1),
    (2, 6, 2, 3, 2),
    (3, 4, 3, 2, 4),
    (2, 8, 5, 1, 4),
    (1, 6, 16, 4, 3),
    (2, 4, 31, 2, 1),
    (1, 8, 255, 4, 2),
    (2, 4, 1000, 1, 2),
    (1, 4, 4095, 2, 1),
    (1, 2, 4096, 4, 2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_recurrence(shape):
    torch.manual_seed(1)
    compare(draw(*shape, seed=sum(shape)), softplus=False)


@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("d", [False, True])
def test_with_and_without_d_bias_and_softplus(d, bias, softplus):
    torch.manual_seed(2)
    inputs = draw(2, 6, 77, 3, 2, d=d, bias=bias)
    if softplus:
        inputs["delta"] = 4 * inputs["u"].roll(1, 2)  # steps of both signs, before the softplus
    compare(inputs, softplus)


def test_random_shapes():
    pick = torch.Generator().manual_seed(3)

    def number(least, most):
        return int(torch.randint(least, most + 1, (), generator=pick))

    for trial in range(12):
        groups = number(1, 3)
        length = int(2 ** (11 * torch.rand((), generator=pick)))
        shape = (number(1, 3), groups * number(1, 3), length, number(1, 4), groups)
        compare(draw(*shape, d=number(0, 1) == 1, seed=trial), softplus=number(0, 1) == 1)


def test_portions_change_nothing(monkeypatch):
    inputs = cast(draw(5, 4, 33, 2, 2), torch.float32)
    whole = selective_scan(**inputs)
    monkeypatch.setitem(torch_scan._AT_ONCE, "cpu", 2 * 4 * 33)
    assert torch.equal(selective_scan(**inputs), whole)
    compare(draw(5, 4, 33, 2, 2), softplus=True)


def test_strong_decays_and_long_sequences_stay_finite():
    inputs = draw(1, 4, 4096, 2, 1, strong=3e3)
    inputs["delta"] = 10 * inputs["delta"]  # delta A down to -1e5
    compare(inputs, softplus=False)


def test_gradcheck_in_float64():
    inputs = cast(draw(2, 4, 7, 2, 2), torch.float64, True)
    assert torch.autograd.gradcheck(
        lambda *tensors: selective_scan(*tensors, True), tuple(inputs.values())
    )


def test_double_precision_is_preserved():
    inputs = draw(2, 4, 50, 2, 2)
    found = selective_scan(**inputs)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, recurrence(**inputs), rtol=1e-12, atol=1e-12)


def test_under_autocast_it_computes_in_float32():
    inputs = cast(draw(2, 8, 300, 2, 2), torch.float32, True)
    with torch.autocast("cpu", torch.bfloat16):
        found = selective_scan(**inputs)
        found.sum().backward()
    assert found.dtype == torch.float32
    near(found.detach(), recurrence(**draw(2, 8, 300, 2, 2)), 1e-5)
    assert all(inputs[name].grad.dtype == torch.float32 for name in GRADIENTS)


def test_half_precision_comes_in_and_goes_out():
    inputs = cast(draw(2, 8, 300, 2, 2), torch.bfloat16, True)
    found = selective_scan(**inputs)
    assert found.dtype == torch.bfloat16
    rounded = {name: x.detach().double() for name, x in inputs.items()}
    near(found.detach(), recurrence(**rounded), 2**-8)
    found.float().sum().backward()
    assert all(inputs[name].grad.dtype == torch.bfloat16 for name in GRADIENTS)


def test_only_wanted_gradients_are_given():
    inputs = cast(draw(1, 2, 9, 2, 1), torch.float32)
    inputs["u"].requires_grad_()
    selective_scan(**inputs).sum().backward()
    assert inputs["u"].grad is not None
    assert inputs["A"].grad is None


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("delta", (1, 4, 8), "u .* and delta"),
        ("A", (3, 2), r"A \(3, 2\) must be \(d, n\) with d = 4"),
        ("B", (1, 3, 2, 9), r"B .* a divisor of 4"),
        ("C", (1, 1, 2, 9), "the same for B and C"),
        ("C", (2, 2, 9), "C .* must be"),
        ("D", (3,), r"D \(3,\) must be \(4,\)"),
        ("delta_bias", (4, 1), "delta_bias"),
    ],
)
def test_wrong_shapes_are_named(name, shape, message):
    inputs = {**draw(1, 4, 9, 2, 2), name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs)


def test_says_which_scan_is_in_use(monkeypatch):
    monkeypatch.setattr(module, "_kernel", lambda: (None, "mamba-ssm is not installed"))
    assert scan_in_use() == "selective scan: torch (mamba-ssm is not installed)"
    monkeypatch.setattr(module, "_kernel", lambda: (print, "mamba-ssm 2.2.4"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU for its kernel" in scan_in_use()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "the kernel of mamba-ssm 2.2.4 on the GPU" in scan_in_use()


@pytest.mark.parametrize("extension", [None, object()])
def test_mamba_without_its_extension_is_no_kernel(extension, monkeypatch):
    """Doctor and the call agree: a package whose extension is None has no kernel."""
    there = types.SimpleNamespace(selective_scan_fn=print, selective_scan_cuda=extension)
    monkeypatch.setattr(module.importlib, "import_module", lambda name: there)
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "2.3.0.dev")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "_kernel", module._kernel.__wrapped__)
    assert (module._kernel()[0] is None) == (extension is None)
    kind, text = _mamba()
    if extension is None:
        assert "torch (mamba-ssm 2.3.0.dev was installed without its kernel)" in text
        assert "pip install --no-build-isolation mamba-ssm, after torch" in text
        assert kind == "note"
    else:
        assert (
            text == "selective scan: the kernel of mamba-ssm 2.3.0.dev on the GPU, torch on the CPU"
        )
        assert kind == "ok"


def test_the_kernel_gets_what_it_wants():
    """Time-dependent arguments have one type, the others are float32."""
    seen = {}

    def kernel(u, delta, A, B, C, D, *, delta_bias, delta_softplus):
        seen["types"] = [x.dtype for x in (u, delta, A, B, C, D, delta_bias)]
        return recurrence(u, delta, A, B, C, D, delta_bias, delta_softplus)

    inputs = cast(draw(1, 4, 9, 2, 2), torch.float32)
    inputs["u"] = inputs["u"].bfloat16()
    values = (*inputs.values(), True)
    found = module._by_kernel(kernel, *values)
    assert found.dtype == torch.bfloat16
    assert seen["types"] == [torch.float32] * 7
    near(found, recurrence(**cast(inputs, torch.float64), delta_softplus=True), 2**-8)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_equals_the_torch_scan(shape, monkeypatch):
    if module._kernel()[0] is None:
        pytest.skip(scan_in_use())
    inputs = {name: x.cuda() for name, x in cast(draw(*shape), torch.float32).items()}
    slope = torch.randn(inputs["u"].shape, device="cuda")
    answers = []
    for function in (module._kernel(), (None, "switched off")):
        monkeypatch.setattr(module, "_kernel", lambda function=function: function)
        each = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        out = selective_scan(**each, delta_softplus=True)
        out.backward(slope)
        answers.append([out.detach(), *(x.grad for x in each.values())])
    for kernel, ours in zip(*answers, strict=True):
        near(kernel, ours.double(), 1e-4)
