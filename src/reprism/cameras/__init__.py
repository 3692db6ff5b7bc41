"""From cameras to people: frames out of videos and streams, and the boxes of the people in them."""
