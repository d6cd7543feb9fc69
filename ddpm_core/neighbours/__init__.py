"""Networks beside the diffusion models: VAE, GAN, a classifier of toy cars."""
