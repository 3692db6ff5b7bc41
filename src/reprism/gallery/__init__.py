"""A gallery on disk: who is in it, where they were seen, and how they are found again."""
