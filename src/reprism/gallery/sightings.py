"""Old names of :mod:`reprism.gallery.inputs`, for one version."""

from reprism.deprecation import renamed

__getattr__ = renamed(
    __name__, Sighting="reprism.gallery.inputs:IndexItem", find_sightings="reprism.gallery.inputs:find_items"
)
