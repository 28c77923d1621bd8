"""Backbones: pretrained networks, never trained here, whose feature maps the photo model starts from."""
