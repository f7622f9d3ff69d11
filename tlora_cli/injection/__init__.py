"""An adapter on a denoiser: attach, load, and what runs in each call."""
