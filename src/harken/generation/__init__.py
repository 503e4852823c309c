"""Sound of rare operating conditions, generated: captions, TangoFlux, small diffusion models, screening."""
