//! A notebook is executed as it is, and the executed notebook is kept. The first run installs what
//! executes notebooks, so it is skipped by name where nothing can be installed.

use platform_e2e::{Platform, skip};

const NOTEBOOK: &str = r##"{
 "cells": [
  {"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [],
   "source": ["import engineersofai_platform as platform\n", "run = platform.training_run(name='notebook')\n", "run.log_metrics({'score': 0.5})\n", "print('six times seven is', 6 * 7)"]}
 ],
 "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}},
 "nbformat": 4, "nbformat_minor": 5
}"##;

#[test]
fn a_notebook_runs_as_it_is_and_the_executed_one_is_kept() {
    let platform = Platform::start();
    let folder = platform.code("notebook", &[("explore.ipynb", NOTEBOOK)]);
    let run = platform.cli_in(&folder, &["run", "--tag", "team=nlp", "explore.ipynb"]);
    if run.code == 125 || run.stderr.contains("requirements") && run.code != 0 {
        return skip(
            "e2e a_notebook_runs_as_it_is",
            "nbclient cannot be installed here",
        );
    }
    assert!(run.expect(0).contains("six times seven is 42"), "{run:?}");
    let to = platform.folder().join("fetched");
    platform
        .cli(&[
            "artifacts",
            "download",
            "run-1",
            "--to",
            &to.display().to_string(),
        ])
        .expect(0);
    let listed = platform.cli(&["artifacts", "list", "run-1", "--json"]);
    assert!(listed.expect(0).contains(".ipynb"), "{listed:?}");
}
