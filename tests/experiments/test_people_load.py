from experiments import people_load as study


def test_of_many_who_click_at_once_nothing_is_lost_and_nothing_double():
    options = study.Options(annotators=6, seconds=60.0, think=0.0, tasks=40, overlap=2, characters=20)
    took, thanked, lost, double = study.measure(options)
    assert (lost, double) == (0, 0)
    assert thanked == len(took) >= 80 * 0.9  # the last ones are held by who has answered already
    assert all(seconds > 0 for seconds in took)
