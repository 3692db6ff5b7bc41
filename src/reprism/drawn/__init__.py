"""People, scenes and cameras drawn by us, in the layouts of real data sets. Nothing here is a picture of a person."""
