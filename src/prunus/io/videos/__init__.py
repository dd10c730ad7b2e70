"""Videos in files, as sources whose frames are read one at a time."""

from prunus.io.videos.animation import Animation, is_animated
from prunus.io.videos.file import VideoFile
from prunus.io.videos.pictures import PICTURES, Pictures, pictures_in
from prunus.io.videos.source import Source

__all__ = [
    "PICTURES",
    "Animation",
    "Pictures",
    "Source",
    "VideoFile",
    "is_animated",
    "pictures_in",
]
