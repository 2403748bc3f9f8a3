"""What is done to the pixels of a clip: crops, warps and colours, clips made of single images, objects pasted in."""
