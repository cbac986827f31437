"""Views of an image against torch's own flips and turns, and the mean over them against a mean written out."""

import pytest
import torch
from torch import nn

from imgcls.models.ensemble import Ensemble
from imgcls.models.grad_cam import grad_cam
from imgcls.models.resnet import resnet
from imgcls.models.views import VIEWS, MeanOverViews, with_views


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return resnet(depth=8, width=8, stem="small", num_classes=5, channels=3, dropout=0.0).eval()


def by_hand(images):
    """The eight symmetries of the square, from flips and transpositions alone."""
    each = []
    for view in (images, images.transpose(2, 3)):
        each += [view, view.flip(3), view.flip(2), view.flip(2, 3)]
    return each


def as_bytes(views):
    return {view.contiguous().numpy().tobytes() for view in views}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one", lambda images: [images]),
        ("flips", lambda images: [images, images.flip(3)]),
        ("orientations", by_hand),
    ],
)
def test_the_views_are_torchs_flips_and_turns(name, expected):
    images = noise(2, 3, 6, 6)
    views = [view.of(images) for view in VIEWS[name]]
    assert len(views) == len(expected(images)) == len(as_bytes(views))
    assert as_bytes(views) == as_bytes(expected(images))
    assert torch.equal(views[0], images)


@pytest.mark.parametrize("view", VIEWS["orientations"], ids=str)
def test_a_view_is_undone(view):
    images = noise(2, 3, 5, 5)
    assert torch.equal(view.undone(view.of(images)), images)


def test_the_answer_is_the_mean_of_the_probabilities_over_the_views():
    images, plain = noise(4, 3, 8, 8), network()
    with torch.no_grad():
        logits = with_views(plain, "orientations")(images)
        each = [torch.softmax(plain(view).double(), dim=1) for view in by_hand(images)]
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double().exp(), torch.stack(each).mean(dim=0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(4))


def test_all_views_at_once_give_the_same_answer():
    images, model = noise(4, 3, 8, 8), with_views(network(), "orientations")
    with torch.no_grad():
        one_by_one = model(images)
        model.at_once = True
        torch.testing.assert_close(model(images), one_by_one, rtol=1e-4, atol=1e-5)


def test_the_answer_for_a_turned_image_is_that_for_the_image():
    images, model = noise(4, 3, 8, 8), with_views(network(), "orientations")
    with torch.no_grad():
        for view in by_hand(images):
            torch.testing.assert_close(model(view), model(images), rtol=1e-4, atol=1e-5)


def test_one_view_is_the_network_itself():
    plain = network()
    assert with_views(plain, "one") is plain


def test_of_an_ensemble_each_member_gets_the_views_and_the_mean_is_of_all():
    images, members = noise(3, 3, 8, 8), [network(0), network(1)]
    model = with_views(Ensemble(members), "flips")
    assert isinstance(model, Ensemble) and all(isinstance(member, MeanOverViews) for member in model.members)
    with torch.no_grad():
        each = [torch.softmax(member(view), dim=1) for member in members for view in (images, images.flip(3))]
        torch.testing.assert_close(torch.softmax(model(images), dim=1), torch.stack(each).mean(dim=0))


def test_the_networks_weights_are_shared_and_not_copied():
    plain = network()
    model = with_views(plain, "orientations")
    assert {id(parameter) for parameter in model.parameters()} == {id(parameter) for parameter in plain.parameters()}


def test_a_map_of_several_views_is_the_mean_of_their_maps_turned_back():
    plain, images, classes = network(), noise(2, 3, 16, 16), torch.tensor([0, 3])
    cams = grad_cam(with_views(plain, "flips"), images, classes)
    first, second = grad_cam(plain, images, classes), grad_cam(plain, images.flip(3), classes)
    torch.testing.assert_close(cams.maps, (first.maps + second.maps.flip(2)) / 2)
    assert cams.layer == first.layer


def test_a_map_of_all_views_turns_with_the_image():
    model, images, classes = with_views(network(), "orientations"), noise(2, 3, 16, 16), torch.tensor([0, 3])
    maps = grad_cam(model, images, classes).maps
    turned = grad_cam(model, torch.rot90(images, 1, (2, 3)), classes).maps
    torch.testing.assert_close(torch.rot90(maps, 1, (1, 2)), turned, rtol=1e-4, atol=1e-5)


def test_a_network_in_training_mode_is_put_in_evaluation_mode_through_its_views():
    plain = network().train()
    with_views(plain, "flips").eval()
    assert not any(module.training for module in plain.modules() if isinstance(module, nn.BatchNorm2d))
