"""Linear layers by oneDNN: the vectors of torch's own, to the rounding, and torch's own where anything is odd."""

import pytest
import torch

from worker import linear, text_model

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="this build of torch has no oneDNN"
)


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(linear, "maker", lambda: "AuthenticAMD")


def layers(dtype=torch.float32):
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(96, 200), torch.nn.GELU(), torch.nn.Linear(200, 64, bias=False), torch.nn.LayerNorm(64)
    ).to(dtype)


@torch.inference_mode()
def test_they_give_what_torch_gives_whatever_the_batch_and_the_threads(measured):
    model, given = layers(), torch.randn(2, 77, 96)
    expected = model(given)
    done = linear.laid_out(model)
    assert done and not done.why
    out = model(given)
    assert torch.allclose(out, expected, atol=1e-5, rtol=1e-5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(model(given[:, :13]), out[:, :13])
    finally:
        torch.set_num_threads(threads)
    with text_model.paused(done):
        assert torch.equal(model(given), expected)
    assert torch.equal(model(given), out)
    done.off()
    assert torch.equal(model(given), expected)


class Scaled(torch.nn.Linear):
    def forward(self, given):
        return 2 * super().forward(given)


@torch.inference_mode()
def test_a_class_made_from_a_linear_layer_and_other_numbers_are_left_alone(measured):
    model = torch.nn.Sequential(Scaled(8, 8), layers(torch.bfloat16))
    assert not linear.laid_out(model)
    assert all("forward" not in vars(each) for each in model.modules())


@torch.inference_mode()
def test_where_one_product_comes_out_otherwise_none_is_done_so(measured, monkeypatch):
    right = linear._multiply

    def wrong(weight, bias, given):
        return right(weight, bias, given) if given.shape[-1] == 96 else right(weight, bias, given) * 1.001

    monkeypatch.setattr(linear, "_multiply", wrong)
    model, given = layers(), torch.randn(5, 96)
    expected = model(given)
    done = linear.laid_out(model)
    assert not done and done.why == "oneDNN: ArithmeticError: a product comes out 0.001 off, expected at most 1e-05"
    assert torch.equal(model(given), expected)


def test_a_processor_that_was_not_measured_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(linear, "maker", lambda: "GenuineIntel")
    done = linear.laid_out(layers())
    assert not done and "not measured" in done.why


def test_the_number_of_threads_is_as_it_was(measured):
    threads = torch.get_num_threads()
    linear.laid_out(layers())
    assert torch.get_num_threads() == threads
