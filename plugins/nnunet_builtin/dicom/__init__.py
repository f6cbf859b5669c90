"""DICOM series and DICOM SEG."""
