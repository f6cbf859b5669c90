"""What scores can and cannot show: intervals, comparisons, rankings, and the words for them."""
