//! ChatGLM2 conversation rounds as one prompt.
