"""Pictures of results: ranked lists and reports."""
