"""text-to-image and image-to-image with diffusers, on aiservice_runtime."""
