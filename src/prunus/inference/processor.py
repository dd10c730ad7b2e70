"""Loading a processor; where torchvision is missing, one that takes images and refuses videos."""

from __future__ import annotations

from typing import Any, NoReturn

from prunus.errors import PrunusError

NO_VIDEOS = (
    "videos need torchvision, which is not installed (images work without it): `prunus constraints "
    "> fits.txt` (what fits the torch that is here), then pip install -c fits.txt 'prunus[video]'"
)


class NoVideos:
    """Stands in a processor where transformers' video processor, which needs torchvision, would."""

    model_input_names: tuple[str, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            PrunusError: always; the message says what to install.
        """
        raise PrunusError(NO_VIDEOS)


def load_processor(place: str, config: Any) -> Any:
    """The processor at ``place`` (a folder or Hugging Face id) of a model with ``config``.

    Raises:
        OSError: there is none.
        ImportError: it needs a library that is not installed, other than for videos.
    """
    from transformers import PROCESSOR_MAPPING, AutoProcessor
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available() and type(config) in PROCESSOR_MAPPING:
        known = PROCESSOR_MAPPING[type(config)]
        if "video_processor" in known.get_attributes():
            return _for_images(known, place)
    return AutoProcessor.from_pretrained(place)


def _for_images(known: Any, place: str) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer

    class ForImages(known):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor":
                return NoVideos
            return super().check_argument_for_proper_class(argument_name, argument)

        def to_dict(self) -> dict[str, Any]:  # what printing a processor asks for
            parts: dict[str, Any] = super().to_dict()
            return {name: part for name, part in parts.items() if not isinstance(part, NoVideos)}

        def save_pretrained(self, *args: Any, **kwargs: Any) -> NoReturn:
            raise PrunusError(f"cannot save a processor without its video part: {NO_VIDEOS}")

    ForImages.__name__ = ForImages.__qualname__ = known.__name__
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained,
        "tokenizer": AutoTokenizer.from_pretrained,
        "video_processor": lambda _: NoVideos(),
    }
    arguments = [parts[name](place) for name in known.get_attributes()]
    settings, _ = known.get_processor_dict(place)
    return ForImages.from_args_and_dict(arguments, settings)
