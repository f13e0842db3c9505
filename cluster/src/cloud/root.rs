//! The supervisor of the sites: one actor each, started when it is asked for, and anew when it has failed. Its state is on disk.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use super::{
    Inner,
    site::{Site, SiteMsg},
};

pub(super) enum RootMsg {
    Site { site: String, reply: oneshot::Sender<Option<ActorRef<SiteMsg>>> },
}

pub(super) struct Root;

pub(super) struct State {
    cloud: Arc<Inner>,
    sites: BTreeMap<String, ActorRef<SiteMsg>>,
}

#[async_trait]
impl Actor for Root {
    type Msg = RootMsg;
    type State = State;
    type Arguments = Arc<Inner>;

    async fn pre_start(&self, _: ActorRef<RootMsg>, cloud: Arc<Inner>) -> Result<State, ActorProcessingErr> {
        Ok(State { cloud, sites: BTreeMap::new() })
    }

    async fn handle(&self, me: ActorRef<RootMsg>, msg: RootMsg, state: &mut State) -> Result<(), ActorProcessingErr> {
        let RootMsg::Site { site, reply } = msg;
        if let Some(known) = state.sites.get(&site) {
            let _ = reply.send(Some(known.clone()));
            return Ok(());
        }
        let arguments = (state.cloud.clone(), site.clone());
        let actor = match Actor::spawn_linked(None, Site, arguments, me.get_cell()).await {
            Ok((actor, _)) => Some(actor),
            Err(error) => {
                tracing::error!(site, %error, "the actor of a site could not be started");
                None
            }
        };
        if let Some(actor) = &actor {
            state.sites.insert(site, actor.clone());
        }
        let _ = reply.send(actor);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (gone, why) = match &event {
            SupervisionEvent::ActorFailed(who, error) => (who.get_id(), error.to_string()),
            SupervisionEvent::ActorTerminated(who, _, why) => (who.get_id(), why.clone().unwrap_or_default()),
            _ => return Ok(()),
        };
        let site = state.sites.iter().find(|(_, actor)| actor.get_id() == gone).map(|(site, _)| site.clone());
        if let Some(site) = site {
            tracing::error!(site, why, "the actor of a site has failed; it goes on from what is on disk");
            state.cloud.measures.restarts.with_label_values(&[&site]).inc();
            state.sites.remove(&site);
            let (reply, _) = oneshot::channel();
            let _ = me.cast(RootMsg::Site { site, reply });
        }
        Ok(())
    }
}
