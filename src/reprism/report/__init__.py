"""Pages: charts, ranked lists, saliency maps, and the reports that show them."""
