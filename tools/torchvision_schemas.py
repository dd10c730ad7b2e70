"""Let torchvision's wheel for CUDA be imported beside a CPU build of torch (development only).

torchvision describes its operators (box suppression, pooling of regions) when it is imported, which
fails where the library that defines them cannot be loaded. The transforms, which video processors
of transformers need, use none of them. Here the missing operators get their schemas: importing
works, calling one of them says that it has no implementation.

The Makefile copies this file into the environment's site-packages, beside a ``.pth`` file that
imports it when Python starts. It waits there until torchvision is imported, so that starting Python
does not import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

_POOLED = "SymInt pooled_height, SymInt pooled_width"
_SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_STEPS = (
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, "
    "SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask"
)
_DEFORM = "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias"

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, float spatial_scale, {_POOLED}, int sampling_ratio, "
    "bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, {_POOLED}, {_SIZES}, "
    "int sampling_ratio, bool aligned) -> Tensor",
    f"ps_roi_align(Tensor input, Tensor rois, float spatial_scale, {_POOLED}, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, "
    f"float spatial_scale, {_POOLED}, int sampling_ratio, {_SIZES}) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, float spatial_scale, {_POOLED}) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, "
    f"{_POOLED}, {_SIZES}) -> Tensor",
    f"ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, {_POOLED}) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, "
    f"float spatial_scale, {_POOLED}, {_SIZES}) -> Tensor",
    "qroi_align(Tensor input, Tensor rois, float input_scale, int input_zero_point, "
    f"float rois_scale, int rois_zero_point, float spatial_scale, {_POOLED}, int sampling_ratio, "
    "bool aligned) -> Tensor",
    f"deform_conv2d({_DEFORM}, {_STEPS}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_DEFORM}, {_STEPS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)

_defined: list[object] = []  # a torch.library.Library takes its definitions along when it goes


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing; defines the schemas when somebody first looks for torchvision."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        _defined.append(library)


sys.meta_path.insert(0, _BeforeTorchvision())
