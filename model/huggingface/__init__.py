"""Models and tokenizers in the form of Hugging Face, both ways."""
