"""Why a compressed network is faster or not: its kernels' times, causes, sentences."""
