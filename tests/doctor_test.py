"""The doctor: healthy here, and one line for each thing that is not."""

import jax
import pytest

from dl_lectures import doctor


def test_this_machine_is_healthy(
  capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  # A machine with an accelerator is healthy too, but tests run on its CPU.
  monkeypatch.setattr(doctor, '_accelerators', list)
  code = doctor.main()
  report = capsys.readouterr().out
  assert code == 0, report
  assert report.endswith('All is well.\n')
  assert f'  jax {jax.__version__}\n' in report
  assert 'JAX on 8 x cpu (cpu)' in report
  assert 'ms a step' in report


def test_a_problem_is_one_line_and_the_exit_status(
  capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  for name in ('check_packages', 'check_host', 'check_train_step'):
    monkeypatch.setattr(doctor, name, lambda: doctor.Finding([]))
  monkeypatch.setattr(doctor, 'check_disk', lambda: doctor.Finding([], ['no']))
  monkeypatch.setattr(doctor, '_accelerators', list)
  assert doctor.main() == 1
  assert capsys.readouterr().out.endswith('PROBLEM  no\n1 problem(s) found.\n')


def fit_packages(package: str) -> str | None:
  return {'dl_lectures': '0.1', 'jax': '0.10.2', 'jaxlib': '0.10.2'}.get(
    package
  )


def requirements(package: str) -> list[str]:
  return {
    'dl_lectures': ['jax<0.13,>=0.10.2', 'mctx; extra == "test"'],
    'jax': ['jaxlib<=0.10.2,>=0.10.2', 'numpy; sys_platform == "none"'],
  }.get(package, [])


def test_packages_that_fit() -> None:
  facts, problems = doctor.check_packages(fit_packages, requirements)
  assert list(facts) == ['dl_lectures 0.1', '  jax 0.10.2']
  assert not problems


@pytest.mark.parametrize(
  ('package', 'version', 'problem'),
  [
    ('jax', '0.13.0', 'jax is 0.13.0, dl_lectures needs jax<0.13,>=0.10.2'),
    ('jax', None, 'jax is missing, dl_lectures needs jax<0.13,>=0.10.2'),
    # What a partial upgrade leaves behind.
    ('jaxlib', '0.9.0', 'jaxlib is 0.9.0, jax needs jaxlib<=0.10.2,>=0.10.2'),
  ],
)
def test_packages_that_do_not_fit(
  package: str, version: str | None, problem: str
) -> None:
  _, problems = doctor.check_packages(
    lambda name: version if name == package else fit_packages(name),
    requirements,
  )
  assert list(problems) == [f'{problem}: rm -rf .venv && make venv']


def test_not_installed() -> None:
  _, problems = doctor.check_packages(lambda _: None, lambda _: [])
  assert list(problems) == [
    'dl_lectures is not installed here: rm -rf .venv && make venv'
  ]


@pytest.mark.parametrize('version', [(3, 11, 0), (3, 13, 9)])
def test_supported_python(version: tuple[int, ...]) -> None:
  assert not doctor.check_python(version).problems


@pytest.mark.parametrize('version', [(3, 10, 14), (3, 14, 0)])
def test_unsupported_python(version: tuple[int, ...]) -> None:
  assert len(doctor.check_python(version).problems) == 1


@pytest.mark.parametrize(
  ('accelerators', 'environment', 'mend'),
  [
    (['gpu'], {}, '[cuda13]'),
    (['tpu'], {}, '[tpu]'),
    (['gpu'], {'JAX_PLATFORMS': 'cpu'}, 'unset JAX_PLATFORMS'),
    (['gpu'], {'CUDA_VISIBLE_DEVICES': ''}, 'unset CUDA_VISIBLE_DEVICES'),
  ],
)
def test_an_overlooked_accelerator(
  accelerators: list[str], environment: dict[str, str], mend: str
) -> None:
  facts, problems = doctor.check_devices(accelerators, environment)
  assert facts[0].startswith('JAX on 8 x cpu (cpu)')
  assert len(problems) == 1
  assert mend in problems[0]


def test_no_accelerator() -> None:
  assert not doctor.check_devices([], {}).problems


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
  def devices() -> list[jax.Device]:
    raise RuntimeError('Unknown backend tpv\nand more')

  monkeypatch.setattr(jax, 'devices', devices)
  assert doctor.check_devices([], {'JAX_PLATFORMS': 'tpv'}).problems == [
    'JAX finds no device (Unknown backend tpv): unset JAX_PLATFORMS, now tpv'
  ]


def test_a_full_disk() -> None:
  assert not doctor.check_disk(lambda _: 2 << 30).problems
  assert len(doctor.check_disk(lambda _: 1 << 29).problems) == 1


def test_no_compile_cache(monkeypatch: pytest.MonkeyPatch) -> None:
  from dl_lectures.training import host

  monkeypatch.setattr(host, 'enable_compile_cache', lambda: None)
  (problem,) = doctor.check_host().problems
  assert 'XDG_CACHE_HOME' in problem


def test_a_check_that_fails_does_not_end_the_report() -> None:
  def broken() -> doctor.Finding:
    raise ModuleNotFoundError("No module named 'jaxlib'")

  def odd() -> doctor.Finding:
    raise ZeroDivisionError

  facts, problems = doctor.examine(
    [broken, odd, lambda: doctor.Finding(['fine'])]
  )
  assert facts == ['fine']
  assert problems == [
    "broken fails (ModuleNotFoundError: No module named 'jaxlib'): "
    'rm -rf .venv && make venv',
    'odd fails (ZeroDivisionError: ): report it, with all of this',
  ]
