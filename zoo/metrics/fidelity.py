"""Sets of pictures compared through torch-fidelity: its Inception, its Fréchet and kernel distances, and our VGG-19.

Every picture becomes one vector, and two clouds of vectors are compared: outputs and styles. The style of a picture is
counted once per picture in a Fréchet distance, as ArtFID does; a kernel distance counts every style once, because its
estimator is unbiased only for vectors that are not repeated.

``register_vgg19`` makes the normalised VGG-19 known to torch-fidelity as the feature extractor ``vgg19-normalised``, so
that ``torch_fidelity.calculate_metrics(..., feature_extractor="vgg19-normalised")`` gives our values of two folders.
Its features are channel means over positions at relu1_1 .. relu5_1; distances take relu4_1 (512 channels). Normalised,
they are near 1, which suits the kernel's constant.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo import weights
from zoo.encoders import load_encoder
from zoo.errors import InputError, WeightsError
from zoo.metrics.base import SetMetric, digest, import_package
from zoo.weights import read_network

VGG19 = "vgg19-normalised"
VGG19_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
VGG19_LAYER = "relu4_1"
INCEPTION_LAYER = "2048"
# The number of images that papers ask of a FID: as many as Inception's features have dimensions.
ENOUGH = 2048
# torch-fidelity's defaults, which are those of Binkowski et al. 2018.
SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020


class FeatureSets(SetMetric):
    """Base of metrics of two clouds of vectors, one vector per output and one per style."""

    def _begin(self) -> None:
        self.outputs: dict[str, tuple[Tensor, Tensor]] = {}

    def _build(self) -> None:
        import_package("torch_fidelity")
        self.network = self._network().to(self.device).eval()
        self._vectors: dict[str, Tensor] = {}

    @abstractmethod
    def _network(self) -> nn.Module:
        """The network that :meth:`_features` reads."""

    def _features(self, image: Tensor) -> Tensor:
        """The vector (D,) of an image (1, 3, H, W); from its bytes, as torch-fidelity's networks take it."""
        return self.network(eight_bits(image))[0][0]

    def _vector(self, image: Tensor) -> Tensor:
        key = digest(image)
        if key not in self._vectors:
            self._vectors[key] = self._features(image).cpu()
        return self._vectors[key]

    def _add(self, output: Tensor, content: Tensor, style: Tensor) -> None:
        # The key puts pictures in an order of their own; pictures of equal pixels count each.
        key = f"{digest(output)} {digest(style)} {digest(content)} {self.count}"
        self.outputs[key] = self._vector(output), self._vector(style)

    def _clouds(self) -> tuple[Tensor, Tensor]:
        """Vectors of outputs and of styles, one of each per picture: (N, D) twice, in an order of their own."""
        pairs = [self.outputs[key] for key in sorted(self.outputs)]
        return torch.stack([output for output, _ in pairs]), torch.stack([style for _, style in pairs])

    def _frechet(self) -> float:
        outputs, styles = self._clouds()
        if len(outputs) < ENOUGH:
            size = outputs.shape[1]
            rank = f" and its {size} x {size} covariances are rank-deficient" if len(outputs) <= size else ""
            self.note = (
                f"{len(outputs)} pictures: a Fréchet distance of fewer than 2,048 is biased upwards{rank}; compare it "
                "with values of equally many only"
            )
        return frechet(outputs, styles)

    def _kernel(self) -> float:
        outputs, styles = self._clouds()
        different = styles.unique(dim=0)
        if len(different) < 2:
            raise InputError("A kernel distance needs pictures in at least two styles.")
        if len(outputs) < ENOUGH:
            self.note = (
                f"{len(outputs)} pictures in {len(different)} styles: a kernel distance of fewer than 2,048 varies "
                "much, and of few styles lies below that of independent sets; so does style-copy's, the styles resized"
            )
        return kernel(outputs, different)


class VGG19Sets(FeatureSets):
    """Base of the distances on VGG-19's features, whose weights ship and never change.

    The two of one run read the same pictures, so the vectors that a process has computed are theirs in common.
    """

    _known: ClassVar[dict[str, dict[str, Tensor]]] = {}

    def _build(self) -> None:
        super()._build()
        self._vectors = self._known.setdefault(str(self.device), {})

    def _network(self) -> nn.Module:
        return register_vgg19()(VGG19, [VGG19_LAYER])


def frechet(first: Tensor, second: Tensor) -> float:
    """torch-fidelity's Fréchet distance of two clouds (N, D) and (M, D)."""
    package = import_package("torch_fidelity.metric_fid")
    statistics = [package.fid_features_to_statistics(cloud.double()) for cloud in (first, second)]
    # Rounding makes the distance of equal clouds a little less than nothing.
    return max(0.0, float(package.fid_statistics_to_metric(*statistics, verbose=False)[package.KEY_METRIC_FID]))


def kernel(first: Tensor, second: Tensor) -> float:
    """torch-fidelity's kernel distance of two clouds (N, D) and (M, D): the mean over 100 subsets of at most 1,000."""
    package = import_package("torch_fidelity.metric_kid")
    size = min(SUBSET_SIZE, len(first), len(second))
    found = package.kid_features_to_metric(
        first.double(), second.double(), kid_subsets=SUBSETS, kid_subset_size=size, rng_seed=SEED, verbose=False
    )
    return float(found[package.KEY_METRIC_KID_MEAN])


# -- networks --------------------------------------------------------------------------------------------------------


def eight_bits(image: Tensor) -> Tensor:
    """``image`` in [0, 1] as the bytes that torch-fidelity's networks take."""
    return (image * 255).round().to(torch.uint8)


def inception() -> nn.Module:
    """torch-fidelity's Inception with the weights of FID; DownloadRequiredError where they are not here."""
    path = weights.path("inception.fid")
    package = import_package("torch_fidelity.feature_extractor_inceptionv3")
    with torch.random.fork_rng(devices=[]):  # it draws random weights before it loads
        try:
            return package.FeatureExtractorInceptionV3(
                "inception-v3-compat", [INCEPTION_LAYER], feature_extractor_weights_path=str(path)
            )
        except RuntimeError as error:
            raise WeightsError(f"{path} does not hold the weights of FID's Inception: {error}.") from error


def art_inception() -> nn.Module:
    """torchvision's Inception v3 up to its pooled 2,048 features, with ArtFID's weights.

    Raises DownloadRequiredError where they are not here, WeightsError where they do not fit.
    """
    from torchvision.models import inception_v3

    state = read_network("inception.art")
    with torch.device("meta"):  # structure only: no memory, no random numbers
        network = inception_v3(weights=None, init_weights=False, aux_logits=False, transform_input=False)
    network.add_module("fc", nn.Identity())
    own = {key: state[key] for key in network.state_dict() if key in state}
    try:
        network.load_state_dict(own, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"The weights of inception.art do not fit Inception v3: {error}.") from error
    return network.eval().requires_grad_(False)


def register_vgg19() -> Any:
    """The extractor class of ``vgg19-normalised``, registered in torch-fidelity once per process."""
    registry = import_package("torch_fidelity.registry")
    if VGG19 not in registry.FEATURE_EXTRACTORS_REGISTRY:
        registry.register_feature_extractor(VGG19, _extractor())
    return registry.FEATURE_EXTRACTORS_REGISTRY[VGG19]


def _extractor() -> Any:
    base: Any = import_package("torch_fidelity").FeatureExtractorBase

    class FeatureExtractorVGG19(base):
        """Channel means of the normalised VGG-19: a tuple of (B, C) from RGB bytes (B, 3, H, W)."""

        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.encoder = load_encoder("vgg19.normalised", taps=features_list)

        def forward(self, input: Tensor) -> tuple[Tensor, ...]:
            if input.dtype != torch.uint8:
                raise InputError(f"{VGG19} takes bytes, not {input.dtype}.")
            features = self.encoder(input.float() / 255)
            return tuple(features[layer].mean(dim=(2, 3)) for layer in self.features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return VGG19_LAYERS

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return VGG19_LAYER

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    return FeatureExtractorVGG19
