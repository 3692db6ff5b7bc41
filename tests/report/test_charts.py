import pytest

from reprism.report.charts import cmc_figure, evaluations_figure, loss_figure, read_log


def write_log(run, version, lines):
    folder = run / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_the_log_of_a_resumed_run_is_read_as_one(tmp_path):
    write_log(tmp_path, 0, ["epoch,loss/total,step,test/mAP", "0,9.0,1,", "0,8.0,3,", "0,,3,0.1"])
    write_log(tmp_path, 2, ["epoch,step,loss/total", "0,3,7.5", "1,5,6.0"])
    write_log(tmp_path, 10, ["epoch,step,loss/total", "1,5,5.5"])
    log = read_log(tmp_path)
    assert log["loss/total"] == [(1, 9.0), (3, 7.5), (5, 5.5)]
    assert log["test/mAP"] == [(3, 0.1)]


def test_a_run_without_logs_has_none(tmp_path):
    assert read_log(tmp_path) == {}


def test_losses_are_drawn_as_logged_and_smoothed():
    log = {"loss/total": [(k, 5.0) for k in range(40)], "loss/triplet": [(0, 1.0), (1, float("nan")), (2, 3.0)]}
    figure = loss_figure(log)
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["total", "batch-hard triplet"]
    drawn, smooth, triplet, _ = axes.lines
    assert drawn.get_ydata() == pytest.approx([5.0] * 40)
    assert smooth.get_ydata() == pytest.approx([5.0] * 40)
    assert list(triplet.get_xdata()) == [0, 2]


def test_charts_show_the_figures_they_are_given():
    cmc = cmc_figure({"before": [0.0, 0.5], "after": [0.75, 1.0]}).axes[0]
    assert [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in cmc.lines] == [
        ("before", [1, 2], [0.0, 0.5]),
        ("after", [1, 2], [0.75, 1.0]),
    ]
    over = evaluations_figure([{"epoch": 5, "mAP": 0.2, "rank1": 0.3}, {"epoch": 9, "mAP": 0.4, "rank1": 0.6}])
    assert [list(line.get_ydata()) for line in over.axes[0].lines] == [[0.3, 0.6], [0.2, 0.4]]


def test_smoothing_leaves_a_straight_fall_where_it_is():
    fall = [100.0 - k for k in range(100)]
    line = loss_figure({"loss/total": list(enumerate(fall))}).axes[0].lines[1]
    assert list(line.get_ydata()) == pytest.approx(fall)
