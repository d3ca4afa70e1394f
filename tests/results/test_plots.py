"""Figures, wherever they are drawn."""

import textwrap


def test_figures_do_not_need_the_backend_of_a_notebook(forked_python, tmp_path):
    backend = "module://matplotlib_inline.backend_inline"
    code = """
        import os, sys
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        from domainbed.results.plots import have_matplotlib, inline_svg, png
        assert have_matplotlib()
        from matplotlib.figure import Figure
        assert png(Figure()).startswith(b"\\x89PNG")
        assert inline_svg(Figure(), "nothing").startswith("<svg")
        print(os.environ["MPLBACKEND"])
    """
    done = forked_python(["-c", textwrap.dedent(code)], tmp_path, {"MPLBACKEND": backend})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{backend}\n"
