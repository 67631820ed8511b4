"""The seeds' warm-up: a small convolutional network on Fashion-MNIST, tested on images that lose pixels."""
