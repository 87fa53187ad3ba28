"""What survives a crash (journal, signer, outbox, checkpoint), and the vectors that are at hand."""
