"""Values and rules of lorakit, free of torch and diffusers (but for the arithmetic in `delta`)."""
