"""Loss values by hand; missing depth never contributes."""

import math

import pytest
import torch

from depthbench.tst.losses import DepthLoss, edge_aware_loss, gradient_loss, metric_loss, silog_loss


def maps(*rows: list[float]) -> torch.Tensor:
    """(1, 1, H, W) from rows."""
    return torch.tensor(rows)[None, None]


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def test_silog_by_hand():
    # log errors ln 2 and 0: mean of squares (ln 2)² / 2, mean ln 2 / 2
    pred, target = maps([2.0, 3.0]), maps([1.0, 3.0])
    expected = math.sqrt(math.log(2) ** 2 / 2 - 0.85 * (math.log(2) / 2) ** 2)
    assert silog_loss(pred, target, everywhere(target)).item() == pytest.approx(expected, rel=1e-6)


def test_silog_of_a_pure_scale_error_keeps_fifteen_percent():
    target = maps([1.0, 2.0], [3.0, 4.0])
    loss = silog_loss(3 * target, target, everywhere(target)).item()
    assert loss == pytest.approx(math.sqrt(0.15) * math.log(3), rel=1e-5)
    assert silog_loss(3 * target, target, everywhere(target), variance_focus=1.0).item() == pytest.approx(0, abs=1e-3)


def test_silog_of_a_perfect_prediction_is_zero_with_zero_gradient():
    target = maps([1.0, 2.0])
    pred = target.clone().requires_grad_()
    loss = silog_loss(pred, target, everywhere(target))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(pred.grad, torch.zeros_like(target))


def test_gradient_loss_by_hand():
    # log errors [[0, a], [0, 0]]: of two horizontal pairs one differs by a, of two vertical pairs one; scale 2 has one pixel
    pred, target = maps([1.0, 5.0], [1.0, 1.0]), maps([1.0, 1.0], [1.0, 1.0])
    a = math.log(5)
    assert gradient_loss(pred, target, everywhere(target), scales=1).item() == pytest.approx(a, rel=1e-6)
    assert gradient_loss(pred, target, everywhere(target), scales=2).item() == pytest.approx(a / 2, rel=1e-6)


def test_gradient_loss_sees_the_coarse_scale():
    # log errors per column [0, x, a, x]: at scale 2 the columns 0 and 2 differ by a
    pred = maps([1.0, 1.0, math.e, math.e])
    target = maps([1.0, 1.0, 1.0, 1.0])
    assert gradient_loss(pred, target, everywhere(target), scales=2).item() == pytest.approx((1 / 3 + 1) / 2, rel=1e-6)


def test_gradient_loss_ignores_a_global_scale():
    target = maps([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert gradient_loss(7 * target, target, everywhere(target)).item() == pytest.approx(0, abs=1e-6)


def test_gradient_loss_counts_pairs_with_two_valid_ends():
    # columns: error 0, missing, error a, error a + b: the only whole pair is the last one
    pred, target = maps([1.0, 9.0, 2.0, 6.0]), maps([1.0, 0.0, 1.0, 1.0])
    loss = gradient_loss(pred, target, target > 0, scales=1)
    assert loss.item() == pytest.approx(math.log(3), rel=1e-6)


def test_edge_aware_loss_by_hand():
    # horizontal log steps ln 2 and ln 3; the image steps by 0.1 at the second: weights 1 and exp(-10 · 0.1)
    pred = maps([1.0, 2.0, 6.0])
    rgb = torch.tensor([0.5, 0.5, 0.6]).expand(1, 3, 1, 3)
    expected = (math.log(2) + math.log(3) * math.exp(-1)) / 2
    assert edge_aware_loss(pred, rgb).item() == pytest.approx(expected, rel=1e-5)
    flat = edge_aware_loss(pred, rgb, sharpness=0.0).item()
    assert flat == pytest.approx(math.log(6) / 2, rel=1e-6)


def test_edge_aware_loss_adds_the_vertical_steps():
    pred, rgb = maps([1.0], [2.0]), torch.zeros(1, 3, 2, 1)
    assert edge_aware_loss(pred, rgb).item() == pytest.approx(math.log(2), rel=1e-6)
    mask = maps([1.0], [0.0]) > 0
    assert edge_aware_loss(pred, rgb, mask).item() == 0


def test_metric_loss_by_hand():
    # the first image: errors 3 and 4 m, the second: 1 m and a pixel without depth, the third has no depth at all
    pred = torch.cat([maps([5.0, 1.0]), maps([2.0, 9.0]), maps([4.0, 4.0])]).requires_grad_()
    target = torch.cat([maps([2.0, 5.0]), maps([1.0, 0.0]), maps([0.0, 0.0])])
    loss = metric_loss(pred, target, target > 0)
    assert loss.item() == pytest.approx((math.sqrt((9 + 16) / 2) + 1) / 2, rel=1e-6)
    loss.backward()
    assert pred.grad.flatten().tolist() == pytest.approx([3 / math.sqrt(50) / 2, -4 / math.sqrt(50) / 2, 0.5, 0, 0, 0])


def test_metric_loss_of_a_perfect_prediction_is_zero_with_zero_gradient():
    pred = maps([1.0, 2.0]).requires_grad_()
    loss = metric_loss(pred, maps([1.0, 2.0]), everywhere(pred))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


def test_depth_loss_is_the_weighted_sum():
    torch.manual_seed(0)
    pred, depth, rgb = 1 + torch.rand(2, 1, 16, 16), 1 + torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    mask = depth > 0
    parts = silog_loss(pred, depth, mask), gradient_loss(pred, depth, mask), edge_aware_loss(pred, rgb, mask)
    metric = metric_loss(pred, depth, mask)
    loss = DepthLoss(silog=2.0, gradient=3.0, edge=5.0, metric=7.0)(pred, depth, rgb)
    torch.testing.assert_close(loss, 2 * parts[0] + 3 * parts[1] + 5 * parts[2] + 7 * metric)
    torch.testing.assert_close(DepthLoss(silog=1.0, gradient=0.0, edge=0.0)(pred, depth, rgb), parts[0])


def test_missing_pixels_contribute_nothing():
    torch.manual_seed(0)
    depth, rgb = 1 + torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    missing = torch.rand(2, 1, 16, 16) < 0.4
    depth[missing] = 0
    one = (1 + torch.rand(2, 1, 16, 16)).requires_grad_()
    other = torch.where(missing, 9.0, one.detach())
    loss = DepthLoss(metric=0.5)(one, depth, rgb)
    torch.testing.assert_close(loss, DepthLoss(metric=0.5)(other, depth, rgb), rtol=0, atol=0)
    loss.backward()
    assert not one.grad[missing].any()
    assert one.grad[~missing].abs().min() > 0


@pytest.mark.parametrize("terms", [{"metric": 1.0}, {"gradient": 0.0, "edge": 0.0}, {"silog": 0.0}], ids=str)
def test_images_without_any_depth_give_zero_loss_and_zero_gradient(terms):
    pred = torch.full((2, 1, 16, 16), 3.0, requires_grad=True)
    loss = DepthLoss(**terms)(pred, torch.zeros(2, 1, 16, 16), torch.rand(2, 3, 16, 16))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


def test_an_empty_image_in_a_batch_changes_nothing():
    torch.manual_seed(0)
    pred, depth, rgb = 1 + torch.rand(2, 1, 16, 16), 1 + torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    depth[1] = 0
    loss = DepthLoss(metric=0.5)
    torch.testing.assert_close(loss(pred, depth, rgb), loss(pred[:1], depth[:1], rgb[:1]))


def test_a_prediction_of_zero_stays_finite():
    pred = torch.zeros(1, 1, 8, 8, requires_grad=True)
    loss = DepthLoss()(pred, torch.ones(1, 1, 8, 8), torch.rand(1, 3, 8, 8))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(pred.grad).all()
