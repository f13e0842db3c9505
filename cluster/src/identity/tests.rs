use std::collections::{BTreeMap, BTreeSet};

use millpond_core::{
    ids::Origin,
    record,
    time::{Span, Timestamp},
};
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

use super::{enrolment::ask_renewal, token::hash_secret, *};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);
const HOUR: Span = Span::from_secs(3600);
const SECRET: [u8; 16] = [5; 16];

fn key(n: u8) -> Key {
    Key::new([n; 32])
}

fn enrolment() -> Enrolment {
    Enrolment {
        authority: Authority::found("plant", &key(1), NOW),
        members: BTreeMap::new(),
        invitations: [(hash_secret(&SECRET), NOW.saturating_add(HOUR))].into(),
        revoked: BTreeSet::new(),
    }
}

fn join(origin: u8, key: &Key) -> Vec<u8> {
    let (public_key, node) = (key.public(), "press-hall".to_owned());
    record::encode(&Ask::Join { secret: SECRET, public_key, origin: Origin([origin; 16]), node })
}

fn certificate(answer: Answer) -> CertificateDer<'static> {
    match answer {
        Answer::Welcome { certificate, .. } => certificate.to_vec().into(),
        Answer::Refused(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn a_certificate_says_whose_it_is() {
    let (answer, effects) = enrolment().handle(NOW, &join(7, &key(2)));
    let subject = Subject::read(&certificate(answer)).unwrap();
    assert_eq!((subject.node.as_str(), subject.site.as_str()), ("press-hall", "plant"));
    assert_eq!((subject.origin, subject.public_key), (Origin([7; 16]), key(2).public()));
    assert_eq!(subject.not_after, NOW.saturating_add(VALID));
    assert_eq!(effects, [Effect::RemoveInvitation(hash_secret(&SECRET)), Effect::SaveMembers]);
}

#[test]
fn an_invitation_works_once() {
    let mut enrolment = enrolment();
    certificate(enrolment.handle(NOW, &join(7, &key(2))).0);
    let again = enrolment.handle(NOW, &join(8, &key(3)));
    assert_eq!(again, (Answer::Refused(Refusal::UnknownInvitation), Vec::new()));
}

#[test]
fn an_expired_invitation_is_refused_and_says_since_when() {
    let mut enrolment = enrolment();
    let late = NOW.saturating_add(HOUR);
    let (answer, effects) = enrolment.handle(late, &join(7, &key(2)));
    assert_eq!(answer, Answer::Refused(Refusal::Expired { expired_ms: late.as_millis() }));
    assert!(effects.is_empty() && enrolment.members.is_empty());
    // In the end it is forgotten.
    let effects = enrolment.handle(NOW.saturating_add(Span::from_secs(30 * 86_400)), b"").1;
    assert_eq!(effects, [Effect::RemoveInvitation(hash_secret(&SECRET))]);
}

#[test]
fn an_origin_belongs_to_one_key() {
    let mut enrolment = enrolment();
    certificate(enrolment.handle(NOW, &join(7, &key(2))).0);
    let mut invite = || enrolment.invitations.insert(hash_secret(&SECRET), NOW.saturating_add(HOUR));
    invite();
    let taken = Answer::Refused(Refusal::OriginTaken { origin: Origin([7; 16]) });
    assert_eq!(enrolment.handle(NOW, &join(7, &key(3))).0, taken);
    // Its own key is welcome again.
    certificate(enrolment.handle(NOW, &join(7, &key(2))).0);
}

#[test]
fn a_certificate_is_renewed_after_it_has_expired_and_by_its_own_key_only() {
    let mut enrolment = enrolment();
    let old = certificate(enrolment.handle(NOW, &join(7, &key(2))).0);
    let later = NOW.saturating_add(VALID).saturating_add(VALID);
    let renew = |key: &Key| record::encode(&ask_renewal(&old, key));
    let (answer, effects) = enrolment.handle(later, &renew(&key(2)));
    let renewed = Subject::read(&certificate(answer)).unwrap();
    assert_eq!((renewed.origin, renewed.not_after), (Origin([7; 16]), later.saturating_add(VALID)));
    assert!(effects.is_empty());
    let stranger = Answer::Refused(Refusal::NotAMember);
    assert_eq!(enrolment.handle(later, &renew(&key(3))).0, stranger);
    // A certificate by another authority for an origin of this site.
    let order = Order { origin: Origin([7; 16]), node: "x", public_key: key(3).public(), now: NOW };
    let forged = Authority::found("plant", &key(9), NOW).issue(&order);
    assert_eq!(enrolment.handle(later, &record::encode(&ask_renewal(&forged, &key(3)))).0, stranger);
    enrolment.revoked.insert(Origin([7; 16]));
    assert_eq!(enrolment.handle(later, &renew(&key(2))).0, Answer::Refused(Refusal::Revoked));
}

#[test]
fn an_authority_that_was_kept_issues_the_same_certificates() {
    let new = Authority::found("plant", &key(1), NOW);
    let kept = Authority::load(new.certificate().clone(), &key(1)).unwrap();
    let order = Order { origin: Origin([7; 16]), node: "x", public_key: key(2).public(), now: NOW };
    assert_eq!(kept.issue(&order), new.issue(&order));
    assert_eq!(kept.site(), "plant");
    assert_eq!(Authority::load(new.certificate().clone(), &key(2)).err(), Some(BadCertificate::OtherKey));
    assert_eq!(Authority::load(new.issue(&order), &key(2)).err(), Some(BadCertificate::NoAuthority));
}

#[test]
fn a_token_that_was_not_copied_whole_is_told_from_a_wrong_one() {
    let token = token(vec!["10.0.0.1:7400".parse().unwrap()]);
    let text = token.to_string();
    assert_eq!(text.parse::<Token>().as_ref(), Ok(&token));
    assert_eq!(format!(" {text}\n").parse::<Token>(), Ok(token.clone()));
    assert_eq!(text[..text.len() - 1].parse::<Token>(), Err(BadToken::Damaged));
    assert_eq!("hunter2".parse::<Token>(), Err(BadToken::NotOne));
    assert_eq!(Token { addrs: Vec::new(), ..token }.to_string().parse::<Token>(), Err(BadToken::NoAddress));
}

fn token(addrs: Vec<std::net::SocketAddr>) -> Token {
    Token { addrs, authority: [3; 32], secret: SECRET, expires_ms: 1_800_000_000_000 }
}

proptest! {
    #[test]
    fn tokens_survive_the_way(addrs in prop::collection::vec(any::<std::net::SocketAddr>(), 1..=16), secret: [u8; 16], expires_ms: i64) {
        let addrs = addrs.into_iter().map(|addr| std::net::SocketAddr::new(addr.ip(), addr.port())).collect();
        let token = Token { secret, expires_ms, ..token(addrs) };
        let text = token.to_string();
        prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        prop_assert_eq!(text.parse::<Token>(), Ok(token));
    }

    #[test]
    fn no_text_is_too_odd_for_a_token(text in ".{0,200}", tail in "[A-Za-z0-9_-]{0,300}") {
        let _ = text.parse::<Token>();
        let _ = format!("mpj1-{tail}").parse::<Token>();
    }

    #[test]
    fn no_frame_is_too_odd_for_the_desk(frame in prop::collection::vec(any::<u8>(), 0..600)) {
        let (answer, effects) = enrolment().handle(NOW, &frame);
        prop_assert_eq!((answer, effects), (Answer::Refused(Refusal::Malformed), Vec::new()));
        let _ = Subject::read(&CertificateDer::from(frame));
    }

    #[test]
    fn a_question_with_damage_gets_no_one_else_in(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut enrolment = enrolment();
        certificate(enrolment.handle(NOW, &join(7, &key(2))).0);
        enrolment.invitations.insert(hash_secret(&SECRET), NOW.saturating_add(HOUR));
        let mut frame = join(7, &key(2));
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        let _ = enrolment.handle(NOW, &frame);
        prop_assert_eq!(enrolment.members[&Origin([7; 16])].public_key, key(2).public());
    }

    #[test]
    fn no_certificate_with_damage_makes_the_reader_stumble(at in any::<prop::sample::Index>(), to: u8) {
        let order = Order { origin: Origin([7; 16]), node: "x", public_key: key(2).public(), now: NOW };
        let mut der = Authority::found("plant", &key(1), NOW).issue(&order).to_vec();
        let at = at.index(der.len());
        der[at] = to;
        let _ = Subject::read(&CertificateDer::from(der));
    }
}

#[test]
fn only_the_authority_says_who_is_revoked() {
    let (site, other) = (Authority::found("plant", &key(1), NOW), Authority::found("plant", &key(2), NOW));
    let origins: BTreeSet<Origin> = [Origin([7; 16]), Origin([9; 16])].into();
    let list = Revocations::sign(&origins, &key(1));
    let read = Revocations::read(&list.encode(), site.certificate()).expect("it is signed");
    assert_eq!(read.origins().collect::<BTreeSet<_>>(), origins);
    assert_eq!(Revocations::read(&list.encode(), other.certificate()), None);
    let mut longer = list.encode().to_vec();
    let at = longer.windows(16).position(|bytes| bytes == [9; 16]).expect("it names the second");
    longer[at] = 10;
    assert_eq!(Revocations::read(&longer, site.certificate()), None, "another origin under the same signature");
}

proptest! {
    #[test]
    fn strangers_revoke_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Revocations::read(&bytes, Authority::found("plant", &key(1), NOW).certificate()), None);
    }
}
