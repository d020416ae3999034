"""What the families of pretrained vision-language models share, whatever their vision tower."""
