"""A run or an adapter -> a folder for the Hugging Face Hub, and its upload."""
