"""speech-to-text: OpenAI's Whisper as an engine of aiservice_runtime."""
