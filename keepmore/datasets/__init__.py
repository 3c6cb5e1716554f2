"""Datasets: a URI becomes a sorted, lazy stream of images, and a source URI becomes the image's bytes."""

from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.listing import absolute_uri, check_dataset, list_images
from keepmore.datasets.source import SourceReader

__all__ = ["Entry", "Skipped", "SourceReader", "absolute_uri", "check_dataset", "list_images"]
