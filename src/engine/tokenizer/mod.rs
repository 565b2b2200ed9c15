//! SentencePiece tokenizer of the ChatGLM2 family.
