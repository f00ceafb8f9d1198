"""Limits on the memory and time that a picture's file may take.

Beyond these limits a file is refused, or its metadata left out.
"""

#: Pixels to be held in memory. A picture with more is refused as a decompression bomb. Pillow's own
#: limit. Peak memory beside the file, measured on 9459 x 9459 pixels: 16 bytes a pixel for WebP and
#: for transparent colours of 48 bits, 13 for transparent levels of 16 bits, 10 for AVIF, 8 for
#: others; 3 to 8 for a progressive JPEG.
MAX_PIXELS = 89_478_485
#: Pixels of a JPEG that the decoder shrinks, whatever `MAX_PIXELS` is. One of 20,000 x 20,000 took
#: 57 MB beside the file.
MAX_JPEG_PIXELS = 400_000_000
#: Scans of a JPEG. Programs write 10, optimisers up to about 20. Each one
#: costs time for all pixels.
MAX_SCANS = 100
#: Pictures of a TIFF that are looked at to find one that is not a preview.
MAX_FRAMES = 100
#: Bytes of a colour profile, or of an unpacked block of a PNG's metadata. Printers' profiles have
#: about 3 MB.
MAX_METADATA = 1 << 22
