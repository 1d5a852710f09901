"""What PYLON is compared with: other heads and poolings on the same encoder, trained the same way.

Preechakul et al. 2022 (iScience 25(3):103933) compare with class activation maps (CAM), with Li et
al. 2018 (arXiv:1711.06373) and with decoders made for segmentation: FPN, U-Net and DeepLabV3+.
"""

from typing import Any, Literal, get_args

from torch import Tensor, nn

from cxrlib.findings import FINDINGS
from cxrlib.models.base import Output
from cxrlib.models.encoders import (
    STRIDE,
    Normalization,
    encoder_arguments,
    normalize_with,
    quiet_import,
    resnet,
)
from cxrlib.models.pylon import conv_norm_relu
from cxrlib.models.recipe import RecipeModule
from cxrlib.parameters import nearest
from cxrlib.pooling import logit_pooling

Head = Literal["cam", "li2018", "fpn", "unet", "deeplab"]

LI_GRID = 20
"""Li et al. bring every feature map to 20 x 20 patches."""


class Baseline(RecipeModule):
    """A head on the encoder of PYLON.

    All heads give a map of logits for each finding:

    - ``"cam"``: 1 x 1 convolution at stride 32. With ``pooling="mean"`` this is the classical CAM
      (Zhou et al. 2016): the mean of a linear map is the linear map of the means (GAP).
    - ``"li2018"``: features brought to 20 x 20, 3 x 3 convolution, 1 x 1 convolution; noisy-or.
    - ``"fpn"``: maps at stride 4, with batch normalization as in the paper.
    - ``"unet"``: maps as large as the image.
    - ``"deeplab"``: DeepLabV3+, stride 4; its pyramid has a global average.

    Args:
        head: see above.
        pooling: of the maps of logits, see :func:`cxrlib.pooling.logit_pooling`; None: the paper's,
            noisy-or for Li et al., else the maximum.
        gap: whether each cell is also told the global average of the coarsest features, for
            the three decoders; None: the paper's, for DeepLabV3+ only. FPN and U-Net add it to
            the coarsest features, after a convolution, as PAN does.
        norm: of everything after the encoder, ``"batch"`` or ``"group"``; CAM has none.
        num_classes, encoder, width, pretrained, augmentation, learning_rate: as in
            :class:`cxrlib.models.pylon.PYLON`; decoders grow with the width.

    Raises:
        ValueError: an argument is out of its range.

    >>> import torch
    >>> model = Baseline("cam", encoder="resnet18", width=16, pooling="mean")
    >>> output = model(torch.rand(2, 1, 64, 64))
    >>> output.logits.shape, output.maps.shape
    (torch.Size([2, 14]), torch.Size([2, 14, 2, 2]))
    """

    def __init__(
        self,
        head: Head = "cam",
        *,
        pooling: str | None = None,
        gap: bool | None = None,
        norm: Normalization = "batch",
        num_classes: int = len(FINDINGS),
        encoder: str = "resnet50.tv_in1k",
        width: int = 64,
        pretrained: bool = False,
        augmentation: Literal["pylon", "upright"] = "pylon",
        learning_rate: float = 1e-4,
    ) -> None:
        super().__init__(augmentation, learning_rate)
        if head not in get_args(Head):
            raise ValueError(f"head = {head!r}; {nearest(head, [*get_args(Head)])}")
        if gap is not None and head in ("cam", "li2018"):
            raise ValueError(f"gap = {gap} with head = {head!r}; only the decoders have the choice")
        if norm != "batch" and head == "cam":
            raise ValueError(f"norm = {norm!r} with head = 'cam', which normalizes nothing")
        self.save_hyperparameters()
        self.coarsest = STRIDE
        self.has_gap = (head == "deeplab") if gap is None else gap
        self.norm = norm
        if head in ("cam", "li2018"):
            make = cam if head == "cam" else li2018
            features = resnet(encoder, width, pretrained)
            self.network: nn.Module = Coarsest(features, make(features, width, num_classes))
        else:
            self.network = segmentation(head, encoder, width, pretrained, num_classes, self.has_gap)
        after = [part for name, part in self.network.named_children() if name != "encoder"]
        normalize_with(norm, *after)
        self.pool = logit_pooling(pooling or ("noisy_or" if head == "li2018" else "max"))

    def forward(self, images: Tensor) -> Output:
        """Images float32 (B, 1, H, W), 0 to 1 -> log-odds (B, C) and maps (B, C, h, w).

        Raises:
            ValueError: the network cannot divide this size, or cannot normalize so few values.
        """
        self.refuse_shape(images)
        scores = self.network(self.standardize(images)).float()  # (B, C, h, w)
        return Output(logits=self.pool(scores), maps=scores.sigmoid())


class Coarsest(nn.Module):
    """A head on the features at stride 32."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> logits (B, C, h, w)."""
        return self.head(self.encoder(x)[-1])


def cam(encoder: Any, width: int, num_classes: int) -> nn.Module:
    """Class activation maps: a linear classifier of each cell."""
    return nn.Conv2d(encoder.feature_info.channels()[-1], num_classes, 1)


def li2018(encoder: Any, width: int, num_classes: int) -> nn.Module:
    """The recognition network of Li et al. 2018."""
    return nn.Sequential(
        nn.UpsamplingBilinear2d((LI_GRID, LI_GRID)),
        conv_norm_relu(encoder.feature_info.channels()[-1], 8 * width, 3),
        nn.Conv2d(8 * width, num_classes, 1),
    )


def segmentation(
    head: str, encoder: str, width: int, pretrained: bool, num_classes: int, gap: bool
) -> nn.Module:
    """A decoder of segmentation_models_pytorch in the paper's size."""
    with quiet_import():
        import segmentation_models_pytorch as smp

    common: dict[str, Any] = {
        "encoder_name": f"tu-{encoder}",
        "encoder_weights": "imagenet" if pretrained else None,
        "in_channels": 1,
        "classes": num_classes,
        **encoder_arguments(encoder, width, pretrained),
    }
    if head == "deeplab":
        network = smp.DeepLabV3Plus(decoder_channels=4 * width, upsampling=1, **common)
        if not gap:
            drop_global_average(network)
        return network
    if head == "fpn":
        network = smp.FPN(
            decoder_pyramid_channels=4 * width,
            decoder_segmentation_channels=2 * width,
            decoder_dropout=0.0,
            upsampling=1,
            **common,
        )
    else:
        sizes = (4 * width, 2 * width, width, width, width)
        network = smp.Unet(decoder_channels=sizes, **common)
    return WithGlobalAverage(network) if gap else network


def drop_global_average(network: Any) -> None:
    """Take the global average out of DeepLabV3+'s pyramid of dilated convolutions."""
    aspp = network.decoder.aspp[0]
    aspp.convs = aspp.convs[:-1]
    old = aspp.project[0]
    inputs = old.in_channels * len(aspp.convs) // (len(aspp.convs) + 1)
    aspp.project[0] = nn.Conv2d(inputs, old.out_channels, 1, bias=False)
    nn.init.kaiming_uniform_(aspp.project[0].weight, nonlinearity="relu")


class WithGlobalAverage(nn.Module):
    """A network whose coarsest features also hold their own global average."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        self.head = network.segmentation_head
        channels = network.encoder.out_channels[-1]
        self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_relu(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> logits (B, C, h, w)."""
        *finer, coarsest = self.encoder(x)
        features = [*finer, coarsest + self.gap(coarsest)]
        return self.head(self.decoder(features))
