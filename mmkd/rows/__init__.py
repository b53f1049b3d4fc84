"""Samples of losses: instances, regions, embeddings, logits, predictions."""
