"""Old name of :mod:`reprism.gallery.database`, for one version."""

from reprism.deprecation import renamed

__getattr__ = renamed(
    __name__,
    Facts="reprism.gallery.database:GalleryInfo",
    GalleryError="reprism.gallery.database:GalleryError",
    GalleryBusyError="reprism.gallery.database:GalleryBusyError",
)
