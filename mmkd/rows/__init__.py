"""What a sample of a loss is: instances, regions, embeddings, logits, predictions."""
