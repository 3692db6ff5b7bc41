"""A gallery over HTTP: search by picture, put in, erase; and the page that does so in a browser."""
