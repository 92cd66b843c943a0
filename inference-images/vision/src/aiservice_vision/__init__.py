"""image-to-text: BLIP-2 captions and PaddleOCR text as an engine of aiservice_runtime."""
