"""The one mask that a video needs: drawn on a local page, or made of a box and clicks."""
