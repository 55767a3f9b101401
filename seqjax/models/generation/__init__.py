"""Images and video from noise."""
