use super::*;

const MAC: Mac = Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn interface(addressing: Addressing) -> Interface {
    Interface { name: "eth0".into(), reference: "lan".into(), vid: None, addressing }
}

fn view<'a>(interface: &'a Interface, own: &[&str], leases: Option<&str>) -> View<'a> {
    View {
        interface,
        mac: MAC,
        place: Place::Host,
        link: 7,
        own: nets(own),
        leases: leases.map(PathBuf::from),
    }
}

#[test]
fn leases_are_found_by_mac() {
    let file = "1790000000 52:54:00:ab:cd:ef 10.0.0.7 pc 01:52:54:00:ab:cd:ef\n\
                1790000000 52:54:00:00:00:01 10.0.0.8 * *\n\
                duid 00:01:00:01:2f:00\n";
    assert_eq!(leased(file, MAC), [ip("10.0.0.7")]);
    assert_eq!(leased(file, Mac([2; 6])), Vec::<IpAddr>::new());
}

/// The example of RFC 4291, appendix A: 34-56-78-9A-BC-DE has the identifier 3656:78ff:fe9a:bcde.
#[test]
fn an_autoconfigured_address_is_that_of_the_standard() {
    let mac = Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
    let made = |own: &str| autoconfigured(&own.parse().unwrap(), mac);
    assert_eq!(made("2001:db8::1/64"), Some(ip("2001:db8::3656:78ff:fe9a:bcde")));
    assert_eq!((made("2001:db8::1/80"), made("10.0.0.1/24")), (None, None));
}

#[test]
fn only_static_addresses_that_the_host_can_see_are_waited_for() {
    let fixed = interface(Addressing::Static(nets(&["10.0.0.7/24", "fd00::7/64"])));
    let view = view(&fixed, &["10.0.0.1/24"], None);
    assert_eq!(view.missing(&[]), ["answer from 10.0.0.7"]);
    assert_eq!(view.missing(&nets(&["10.0.0.7/24"])), Vec::<String>::new());
}

#[test]
fn another_mac_or_another_link_proves_nothing() {
    let fixed = interface(Addressing::Static(nets(&["10.0.0.7/24"])));
    let view = view(&fixed, &["10.0.0.1/24"], None);
    let right = Neighbour { link: 7, address: ip("10.0.0.7"), mac: MAC };
    assert!(view.answers(&[right], ip("10.0.0.7")));
    for wrong in [
        Neighbour { mac: Mac([2; 6]), ..right },
        Neighbour { link: 8, ..right },
        Neighbour { address: ip("10.0.0.8"), ..right },
    ] {
        assert!(!view.answers(&[wrong], ip("10.0.0.7")), "{wrong:?}");
    }
}

#[test]
fn a_lease_is_waited_for_before_an_address_that_a_guest_gives_itself() {
    let both = interface(Addressing::Dynamic { v4: true, v6: true });
    let own = ["10.0.0.1/24", "fd00::1/64"];
    let unleased = view(&both, &own, Some("/nowhere"));
    assert_eq!(unleased.missing(&[]), ["DHCP lease on lan"]);
    let file = std::env::temp_dir().join(format!("netloom-sight-{}", std::process::id()));
    std::fs::write(&file, format!("1 {MAC} 10.0.0.9 pc *\n")).unwrap();
    let leased = view(&both, &own, file.to_str());
    let missing = leased.missing(&[]);
    let all = leased.candidates(&[Neighbour { link: 7, address: ip("fd00::1234"), mac: MAC }]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(missing, ["answer from 10.0.0.9"]);
    assert_eq!(all, nets(&["10.0.0.9/24", "fd00::1234/64", "fd00::5054:ff:feab:cdef/64"]));
    assert_eq!(leased.missing(&nets(&["10.0.0.9/24"])), Vec::<String>::new());

    let v6 = interface(Addressing::Dynamic { v4: false, v6: true });
    assert_eq!(view(&v6, &own, None).missing(&[]), ["answer from fd00::5054:ff:feab:cdef"]);
    assert_eq!(view(&v6, &["10.0.0.1/24"], None).missing(&[]), Vec::<String>::new());
}

#[test]
fn a_guest_without_an_agent_is_judged_by_its_word_and_by_what_answers() {
    use Answering::{All, CannotBeSeen, NotAll};
    use Judgement::{Failed, Ready, ReadyUnlessAnAgentComes, Wait};
    let done = |agent| Some(Word::Ready { agent });
    let failed = || Some(Word::Failed { reasons: "no".into() });
    for (word, seen, wanted) in [
        (None, NotAll, Wait),
        (None, All, ReadyUnlessAnAgentComes),
        (None, CannotBeSeen, Wait),
        (Some(Word::Begun), All, Wait),
        (Some(Word::Begun), CannotBeSeen, Wait),
        (done(false), NotAll, Wait),
        (done(false), All, Ready),
        (done(false), CannotBeSeen, Ready),
        (done(true), NotAll, Wait),
        (done(true), All, ReadyUnlessAnAgentComes),
        (done(true), CannotBeSeen, ReadyUnlessAnAgentComes),
        (failed(), NotAll, Failed("no".into())),
        (failed(), All, Failed("no".into())),
    ] {
        assert_eq!(judge(word.clone(), seen), wanted, "{word:?} {seen:?}");
    }
}
