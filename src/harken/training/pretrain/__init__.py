"""Pre-training of encoders on sound without labels: masked patches and a class token predict a teacher's features."""
