"""The systems that made deep learning, each one readable JAX file."""
